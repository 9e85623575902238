"""What all packages need of the file system; imports none of them."""
