"""Networks wrapped for training and scoring."""
