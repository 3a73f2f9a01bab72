"""moto's server with a KMS that signs digests.

moto hashes whatever it is given to sign once more, also where the caller says
MessageType=DIGEST; AWS doesn't. Everything that signs here sends digests.
"""

import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils as prehashed
from moto.kms import utils
from moto.server import main


def algorithm(name):
    return {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}[name[-3:]]()


def sign_ecdsa(self, message, signing_algorithm):
    digest = prehashed.Prehashed(algorithm(signing_algorithm))
    return self.private_key.sign(message, ec.ECDSA(digest))


def sign_rsa(self, message, signing_algorithm):
    assert "PKCS1" in signing_algorithm, signing_algorithm
    digest = prehashed.Prehashed(algorithm(signing_algorithm))
    return self.private_key.sign(message, padding.PKCS1v15(), digest)


utils.ECDSAPrivateKey.sign = sign_ecdsa
utils.RSAPrivateKey.sign = sign_rsa
main(sys.argv[1:])
