"""From a plan to tokens on the device."""
