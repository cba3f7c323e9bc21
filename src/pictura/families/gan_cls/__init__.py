"""GAN-CLS: generative adversarial text to image synthesis (Reed et al. 2016)."""
