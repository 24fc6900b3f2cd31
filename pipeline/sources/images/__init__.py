"""Still images and lists of images as a stream."""
