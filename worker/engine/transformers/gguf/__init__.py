"""GGUF files as checkpoints.

loading    a file's name -> model and tokenizer, through transformers
gaps       what transformers does not take from a file's header
reading    the header's metadata, read once
"""
