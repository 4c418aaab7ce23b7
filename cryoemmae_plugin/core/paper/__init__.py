"""The published method whole: preprocessing, clusters, components, and the picker that joins them.

Source: Zamanos et al., Cell Reports Methods 2025. The default mode shares the encoder with it, and the hierarchy of
clusters; nothing here depends on the default mode.
"""
