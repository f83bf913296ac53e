"""Masking methods, and what is done around them: a secret key, augmented copies, shards."""
