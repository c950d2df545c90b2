"""Foreign folders that want to do harm, and the watch on the commands that open them."""
