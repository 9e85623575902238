"""What a talking model is taught, one lesson after another."""
