"""The cloud: roster, base model, augmentation, filters, ledger, and the Flower strategy."""
