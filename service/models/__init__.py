"""Model versions in a running service: taken in, proved, loaded, switched, rolled back.

intake       a bundle's files into a private place, checked against manifest and signature
inspection   the golden answers, asked in a child process with limits on memory and time
loading      graphs and item table, by one background thread that yields to everything else
hot_swap     the verbs: load, activate, canary, shadow, promote, rollback, unload
guard        takes a new version back when it fails or is slow in its first minutes
shadow       a sampled copy of the traffic for a version that answers nobody
follower     the newest version, by itself
fleet        the same version in every process that shares a store
"""
