"""What ``pools.py`` consists of: the rows, their division among sources, the arms, and tables."""
