"""What a training of ``train_aae.py`` needs beside its two phases."""
