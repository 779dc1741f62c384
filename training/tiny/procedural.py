def procedural_object(seed):
    raise NotImplementedError
