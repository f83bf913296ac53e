"""Images and masked files: what goes into a mask, and what comes out."""
