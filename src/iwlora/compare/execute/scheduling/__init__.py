"""What a comparison starts next: its runs, the trials of its search, the draws of open arms."""
