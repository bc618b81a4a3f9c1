"""Training of VC R-CNN: images, dictionary, network, loop, checkpoints."""
