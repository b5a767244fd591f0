"""The device: consent, private adaptation, offline answering. One LaMP user is one device."""
