"""What a round costs, by traffic pattern."""
