"""Commands whose n-th system call fails; ``failing_calls.py`` executes them."""
