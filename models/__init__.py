"""What is learned: the network, its data, its training and its scores."""
