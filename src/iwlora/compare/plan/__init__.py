"""Which runs a comparison consists of, how learning rates are searched, and what it will cost."""
