"""The search for a learning rate: the curve of the loss, the rules that choose, and ties."""
