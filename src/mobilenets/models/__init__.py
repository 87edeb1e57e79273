"""Tables -> Keras models, and model directories."""

from mobilenets.quiet import quiet

with quiet():
    import keras as keras
