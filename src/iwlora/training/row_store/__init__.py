"""What is computed once for a row and kept on the disk: frozen activations, decoded images."""
