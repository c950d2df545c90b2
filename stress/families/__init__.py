"""Every model family of the installed transformers, tiny, through the whole tool."""
