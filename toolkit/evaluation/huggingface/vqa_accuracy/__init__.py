"""VQA accuracy for Hugging Face `evaluate`; the script beside this file is the module."""
