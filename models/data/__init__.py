"""What the network learns from and is scored on: data sets, augmentation, corruption."""
