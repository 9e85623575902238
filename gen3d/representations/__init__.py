"""What an asset is made of while it is optimised."""
