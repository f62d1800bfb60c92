"""What a wearable sends, as timestamped samples in SI units."""
