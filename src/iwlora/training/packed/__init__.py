"""Several runs over one frozen backbone, in one forward and backward pass."""
