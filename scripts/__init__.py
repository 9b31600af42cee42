"""What users type are the .sh files here; the Python behind them is in a folder per trade."""
