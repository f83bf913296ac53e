"""The paper's tables and figures beside ours, made by one command."""
