"""The two kinds of codebooks: patches that fit some images, and trained VQ models."""
