"""What ``classify.py`` needs beside its loops: draws of classes, features, jobs, tables."""
