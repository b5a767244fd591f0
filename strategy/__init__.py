"""The cloud: registry, base model, augmentation, filters, ledger, and the Flower strategy."""
