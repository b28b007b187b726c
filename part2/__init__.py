"""Text: an LSTM that writes."""
