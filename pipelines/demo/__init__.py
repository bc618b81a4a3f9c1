"""The demonstration: a made-up dataset through every stage. One file for what each model learns."""
