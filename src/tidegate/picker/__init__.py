"""The decision: which endpoint a request goes to. Pure: time comes in as `now`, chance as a seeded generator.

Request path: InferenceRequest → director.Director → Pool.view → profile.Profile (filters, scorers, one picker) →
Decision, counted in the Pool.

A policy is changed in one place: one file per scorer and picker, put together in `profile.default_profile`.
"""
