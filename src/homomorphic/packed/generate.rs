// SPDX-License-Identifier: MPL-2.0
//! Primes for a Paillier-Blum modulus.

use super::super::Error;
use super::super::random::Random;
use crypto_bigint::BoxedUint;
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use zeroize::Zeroizing;

pub(crate) type Prime = Zeroizing<BoxedUint>;

/// Two primes of `bits`/2 bits each, both 3 mod 4 and with their two top bits set, so that n has
/// `bits` bits. p, q > 2^(bits/2 − 1) and of equal length, so q = 2p + 1 and the like cannot be,
/// and gcd(n, (p−1)(q−1)) = 1. They are Baillie-PSW primes with the strengthened Lucas test
/// (`crypto-primes`), for which no composite is known. Random primes of this length are as
/// strong against p−1 and p+1 methods as special ones (FIPS 186-5, appendix A.1.1). Their
/// distance is checked as FIPS 186-5 A.1.3 has it: over 2^(bits/2 − 100).
pub(crate) fn draw_primes(random: &mut Random, bits: u32) -> Result<(Prime, Prime), Error> {
    if bits < 256 || !bits.is_multiple_of(128) {
        return Err(Error::KeySize(bits));
    }
    loop {
        let (p, q) = (draw(random, bits / 2)?, draw(random, bits / 2)?);
        let (large, small) = if *p > *q { (&p, &q) } else { (&q, &p) };
        if Zeroizing::new(large.wrapping_sub(&**small)).bits() > bits / 2 - 100 {
            return Ok((p, q));
        }
    }
}

fn draw(random: &mut Random, bits: u32) -> Result<Prime, Error> {
    let sieve = SmallFactorsSieveFactory::<BoxedUint>::new(Flavor::Any, bits, SetBits::TwoMsb);
    let blum = |_: &mut Random, candidate: &BoxedUint| {
        candidate.as_words()[0] & 3 == 3 && is_prime(Flavor::Any, candidate)
    };
    let found = sieve.and_then(|sieve| sieve_and_find(random, sieve, blum));
    let prime = found.ok().flatten().ok_or(Error::KeySize(bits * 2))?;
    Ok(Zeroizing::new(prime))
}
