// SPDX-License-Identifier: MPL-2.0
//! Every path against the naive reference, with keys of 512 bits so that it is quick.

use super::naive::{self, Generator, Pretreated};
use super::packed::{self, *};
use super::random::Random;
use super::*;
use num_bigint::BigUint;
use proptest::prelude::*;
use std::sync::LazyLock;

const BITS: u32 = 512;
const SEED: [u8; 32] = [7; 32];

struct Keys {
    secret: SecretKey,
    encryptor: Encryptor,
    naive: naive::SecretKey,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let secret = SecretKey::generate(BITS).unwrap();
    let encryptor = encryptor(&secret, BITS + 64);
    let (p, q) = secret.expose_primes();
    let (p, q) = (BigUint::from_bytes_be(&p), BigUint::from_bytes_be(&q));
    // n + 1, so that both schemes read each other's ciphertexts.
    let naive = naive::SecretKey::from_primes(&p, &q, Generator::OneMore).unwrap();
    Keys {
        secret,
        encryptor,
        naive,
    }
});

static OTHER: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::generate(BITS).unwrap());

fn encryptor(secret: &SecretKey, exponent_bits: u32) -> Encryptor {
    let base = Base::derive(secret.public(), &SEED, b"contract");
    Encryptor::new(Randomiser::new(secret.public(), &base, exponent_bits).unwrap())
}

/// The homomorphic laws of one scheme.
fn laws<S: AdditiveScheme>(scheme: &S, secret: &impl Decrypt<S>, a: i64, b: i64, factor: i64) {
    let open = |c: &S::Ciphertext| secret.decrypt(c).unwrap().words().to_vec();
    let open = |c: &S::Ciphertext| big(&Plaintext::from_words(open(c)));
    let (ea, eb) = (
        scheme.encrypt(&a.into()).unwrap(),
        scheme.encrypt(&b.into()).unwrap(),
    );
    let (a, b, factor_) = (i128::from(a), i128::from(b), i128::from(factor));
    assert_eq!(open(&ea), a);
    assert_eq!(open(&scheme.add(&ea, &eb).unwrap()), a + b);
    let plain = Plaintext::from(b as i64);
    assert_eq!(open(&scheme.add_plain(&ea, &plain).unwrap()), a + b);
    assert_eq!(open(&scheme.mul_plain(&ea, factor).unwrap()), a * factor_);
    let again = scheme.rerandomise(&ea).unwrap();
    assert_eq!(open(&again), a);
    assert_ne!(scheme.to_bytes(&again), scheme.to_bytes(&ea));
    let bytes = scheme.to_bytes(&ea);
    assert_eq!(bytes.len(), scheme.ciphertext_bytes());
    assert_eq!(open(&scheme.parse(&bytes).unwrap()), a);
}

/// Of a plaintext that has no more than 128 bits.
fn big(plaintext: &Plaintext) -> i128 {
    let words = plaintext.words();
    let fill = ((words[words.len() - 1] as i64) >> 63) as u64;
    let word = |i: usize| u128::from(words.get(i).copied().unwrap_or(fill));
    assert!(
        words.iter().skip(2).all(|&w| w == fill),
        "more than 128 bits"
    );
    (word(0) | word(1) << 64) as i128
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn both_schemes_keep_the_laws(a: i64, b: i64, factor: i64) {
        laws(&KEYS.encryptor, &KEYS.secret, a, b, factor);
        laws(KEYS.naive.public(), &KEYS.naive, a, b, factor);
    }

    #[test]
    fn the_schemes_read_each_other(words in prop::collection::vec(any::<u64>(), 1..8)) {
        let value = Plaintext::from_words(words);
        let (packed, naive) = (&KEYS.encryptor, KEYS.naive.public());
        let c = packed.to_bytes(&packed.encrypt(&value).unwrap());
        prop_assert_eq!(&KEYS.naive.decrypt(&naive.parse(&c).unwrap()).unwrap(), &value);
        let c = naive.to_bytes(&naive.encrypt(&value).unwrap());
        prop_assert_eq!(&KEYS.secret.decrypt(&packed.parse(&c).unwrap()).unwrap(), &value);
    }

    #[test]
    fn tables_multiply_as_powers_do(bits in 1u32..700, words: [u64; 11]) {
        let mut exponent = crypto_bigint::BoxedUint::from_words(words);
        exponent.as_mut_words()[bits as usize / 64..].iter_mut().enumerate().for_each(|(i, w)| {
            *w = if i == 0 { *w & ((1u64 << (bits % 64)) - 1) } else { 0 };
        });
        let key = KEYS.secret.public();
        let base = Base::derive(key, &SEED, b"");
        let randomiser = Randomiser::new(key, &base, bits).unwrap();
        let power = randomiser.test_power(&exponent);
        let n2 = KEYS.naive.public().modulus().pow(2);
        let of = |c: &packed::Ciphertext| BigUint::from_bytes_be(&key.to_bytes(c));
        let expected = of(&base.as_ciphertext()).modpow(&naive::big(&exponent), &n2);
        prop_assert_eq!(of(&power), expected);
        // Side by side, with others in the other lanes.
        let mut random = Random::new().unwrap();
        let mut exponents: Vec<_> = (0..7).map(|_| random.below_power(bits)).collect();
        exponents.insert(bits as usize % 8, exponent.into());
        if let Some(powers) = randomiser.test_powers(&exponents) {
            for (exponent, power) in exponents.iter().zip(powers) {
                prop_assert_eq!(of(&power), of(&randomiser.test_power(exponent)));
            }
        }
    }

    #[test]
    fn sign_tables_are_products_of_signs(
        values in prop::collection::vec((any::<i32>(), any::<bool>()), 0..11), sum: i32,
    ) {
        let key = KEYS.secret.public();
        let naive = KEYS.naive.public();
        let tickets: Vec<_> = values.iter()
            .map(|&(v, _)| KEYS.encryptor.encrypt(&i64::from(v).into()).unwrap())
            .collect();
        let tables = SignTables::new(key, &tickets).unwrap();
        let signs: Vec<_> = values.iter().map(|&(_, negative)| negative).collect();
        let sent = tables
            .combine(&i64::from(sum).into(), &signs, KEYS.encryptor.randomiser())
            .unwrap();
        let mut expected = naive.encrypt(&i64::from(sum).into()).unwrap();
        for (ticket, &negative) in tickets.iter().zip(&signs) {
            let ticket = naive.parse(&key.to_bytes(ticket)).unwrap();
            let signed = naive.mul_plain(&ticket, if negative { -1 } else { 1 }).unwrap();
            expected = naive.add(&expected, &signed).unwrap();
        }
        prop_assert_eq!(KEYS.secret.decrypt(&sent).unwrap(), KEYS.naive.decrypt(&expected).unwrap());
        let wrong = tables.multiply(sent, &vec![true; signs.len() + 1]);
        let refused = matches!(wrong, Err(Error::SignCount { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn many_at_a_time_are_as_one_by_one(
        values in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..8), 0..20),
    ) {
        let key = KEYS.secret.public();
        let n2 = KEYS.naive.public().modulus().pow(2);
        let of = |v: &BigUint| {
            let digits = v.to_bytes_be();
            let bytes = [vec![0; key.ciphertext_bytes() - digits.len()], digits].concat();
            key.parse(&bytes).unwrap()
        };
        // Ciphertexts at the edges first: 1, n² − 1, n + 1, n² − n + 1.
        let n = KEYS.naive.public().modulus();
        let mut ciphertexts = vec![of(&1u32.into()), of(&(&n2 - 1u32)), of(&(n + 1u32)), of(&(&n2 - n + 1u32))];
        ciphertexts.extend(values.into_iter().map(|words| {
            KEYS.encryptor.encrypt(&Plaintext::from_words(words)).unwrap()
        }));
        let many = KEYS.secret.decrypt_many(&ciphertexts).unwrap();
        let portable = KEYS.secret.decrypt_many_by(Engine::PORTABLE, &ciphertexts).unwrap();
        prop_assert_eq!(&many, &portable);
        for (one, c) in many.iter().zip(&ciphertexts) {
            let naive = KEYS.naive.public().parse(&key.to_bytes(c)).unwrap();
            prop_assert_eq!(one, &KEYS.naive.decrypt(&naive).unwrap());
        }
    }

    #[test]
    fn many_are_signed_as_one_by_one(
        tickets in prop::collection::vec(any::<i32>(), 0..11),
        sums in prop::collection::vec((any::<i32>(), any::<u16>()), 0..18),
    ) {
        let key = KEYS.secret.public();
        let encrypt = |v: &i32| KEYS.encryptor.encrypt(&i64::from(*v).into()).unwrap();
        let encrypted: Vec<_> = tickets.iter().map(encrypt).collect();
        let tables = SignTables::new(key, &encrypted).unwrap();
        let signs: Vec<Vec<bool>> = sums.iter()
            .map(|(_, signs)| (0..tickets.len()).map(|i| signs >> i & 1 == 1).collect())
            .collect();
        let given: Vec<_> = sums.iter().zip(&signs)
            .map(|(&(sum, _), signs)| (Plaintext::from(i64::from(sum)), &signs[..]))
            .collect();
        let randomiser = KEYS.encryptor.randomiser();
        for engine in [Engine::detect(), Engine::PORTABLE] {
            let sent = tables.combine_many_by(engine, &given, randomiser).unwrap();
            prop_assert_eq!(sent.len(), sums.len());
            for ((c, &(sum, _)), signs) in sent.iter().zip(&sums).zip(&signs) {
                let signed = tickets.iter().zip(signs)
                    .map(|(&t, &negative)| if negative { -i64::from(t) } else { i64::from(t) });
                let expected = i64::from(sum) + signed.sum::<i64>();
                prop_assert_eq!(KEYS.secret.decrypt(c).unwrap().to_i64(), Some(expected));
                // It is a ciphertext as any other, for who parses and who goes on computing.
                let again = key.parse(&key.to_bytes(c)).unwrap();
                let doubled = key.add(&again, c).unwrap();
                prop_assert_eq!(KEYS.secret.decrypt(&doubled).unwrap().to_i64(), Some(2 * expected));
            }
        }
    }

    #[test]
    fn slots_come_back(
        slot_bits in 2u32..=31, guard in 0u32..31, count in 0usize..=170, seed: u64,
    ) {
        let guard = guard % slot_bits;
        let packing = Packing::new(slot_bits, guard, BITS).unwrap();
        let limit = i64::from(packing.limit());
        let count = count.min(packing.slots());
        let mut state = seed;
        let values: Vec<i32> = (0..count).map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            match limit {
                0 => 0,
                _ => ((state >> 33) as i64 % (2 * limit) - limit) as i32,
            }
        }).collect();
        if limit > 0 {
            let plain = packing.pack(&values).unwrap();
            let back = packing.unpack(&plain).unwrap();
            prop_assert_eq!(&back[..count], &values[..]);
            prop_assert!(back[count..].iter().all(|&v| v == 0));
        }
    }
}

#[test]
fn marks_are_added_to_packed_slots() {
    // What the protocol does: q0 + w·δ in every slot, w unknown to who adds.
    let key = KEYS.secret.public();
    let packing = Packing::new(DEFAULT_SLOT_BITS, DEFAULT_GUARD_BITS, BITS).unwrap();
    let slots = packing.slots();
    let half_step = 100;
    let bit = |slot: usize| slot.is_multiple_of(3);
    let negative: Vec<_> = (0..slots).map(|slot| slot.is_multiple_of(2)).collect();
    let shifted: Vec<_> = (0..slots)
        .map(|slot| {
            let ticket = KEYS
                .encryptor
                .encrypt(&i64::from(bit(slot)).into())
                .unwrap();
            let ticket = key.mul_plain(&ticket, half_step).unwrap();
            key.shift(&ticket, packing.shift(slot)).unwrap()
        })
        .collect();
    let tables = SignTables::new(key, &shifted).unwrap();
    let mut values: Vec<i32> = (0..slots as i32).map(|i| i * 37 - 600).collect();
    values[0] = packing.limit() - 1;
    values[1] = -packing.limit();
    let sum = packing.pack(&values).unwrap();
    let sent = tables
        .combine(&sum, &negative, KEYS.encryptor.randomiser())
        .unwrap();
    let opened = packing
        .unpack(&KEYS.secret.decrypt(&sent).unwrap())
        .unwrap();
    for slot in 0..slots {
        let delta = if negative[slot] {
            -half_step
        } else {
            half_step
        } as i32;
        assert_eq!(opened[slot], values[slot] + i32::from(bit(slot)) * delta);
    }
}

#[test]
fn plaintexts_end_at_half_the_modulus() {
    let n = KEYS.naive.public().modulus();
    let words = |v: &BigUint| v.to_u64_digits();
    let top = (n - 1u32) / 2u32;
    let mut positive = words(&top);
    positive.push(0);
    // −top in two's complement.
    let negative: Vec<u64> = {
        let mut carry = true;
        positive
            .iter()
            .map(|w| {
                let (sum, c) = (!w).overflowing_add(u64::from(carry));
                carry = c;
                sum
            })
            .collect()
    };
    for edge in [positive.clone(), negative.clone()] {
        let edge = Plaintext::from_words(edge);
        let c = KEYS.encryptor.encrypt(&edge).unwrap();
        assert_eq!(KEYS.secret.decrypt(&c).unwrap(), edge);
        let c = KEYS.naive.public().encrypt(&edge).unwrap();
        assert_eq!(KEYS.naive.decrypt(&c).unwrap(), edge);
    }
    let mut more = words(&(top + 1u32));
    more.push(0);
    let less: Vec<u64> = {
        let mut borrow = true;
        negative
            .iter()
            .map(|w| {
                let (d, b) = w.overflowing_sub(u64::from(borrow));
                borrow = b;
                d
            })
            .collect()
    };
    for beyond in [
        more,
        less,
        vec![0, 0, 0, 0, 0, 0, 0, 0, 1],
        vec![u64::MAX; 9]
            .split_off(8)
            .into_iter()
            .chain([0; 8])
            .chain([u64::MAX])
            .collect(),
    ] {
        let beyond = Plaintext::from_words(beyond);
        assert!(matches!(
            KEYS.encryptor.encrypt(&beyond),
            Err(Error::PlaintextRange)
        ));
        assert!(matches!(
            KEYS.naive.public().encrypt(&beyond),
            Err(Error::PlaintextRange)
        ));
    }
}

#[test]
fn machine_integers_come_back() {
    for v in [0, 1, -1, i64::MAX, i64::MIN] {
        assert_eq!(Plaintext::from(v).to_i64(), Some(v));
        let c = KEYS.encryptor.encrypt(&v.into()).unwrap();
        assert_eq!(KEYS.secret.decrypt(&c).unwrap().to_i64(), Some(v));
    }
    assert_eq!(Plaintext::from_words(vec![1 << 63, 0]).to_i64(), None);
    assert_eq!(Plaintext::from_words(vec![0, u64::MAX]).to_i64(), None);
    assert_eq!(Plaintext::from_words(vec![]), Plaintext::from(0));
}

#[test]
fn slots_refuse_what_does_not_fit() {
    assert_eq!(Packing::new(15, 1, 3072).unwrap().slots(), 204);
    assert_eq!(Packing::new(15, 1, 2048).unwrap().slots(), 136);
    for (slot_bits, guard_bits, bits) in [(1, 0, 512), (32, 0, 512), (8, 8, 512), (15, 1, 16)] {
        let made = Packing::new(slot_bits, guard_bits, bits);
        assert!(matches!(made, Err(Error::PackingShape { .. })));
    }
    assert!(matches!(
        Packing::new(0, 0, 512),
        Err(Error::PackingShape { .. })
    ));
    let packing = Packing::new(15, 1, BITS).unwrap();
    assert_eq!(packing.limit(), 8192);
    assert!(matches!(packing.pack(&[0, 8192]), Err(Error::SlotRange(1))));
    assert!(matches!(packing.pack(&[-8193]), Err(Error::SlotRange(0))));
    let many = vec![0; packing.slots() + 1];
    assert!(matches!(
        packing.pack(&many),
        Err(Error::TooManyValues { .. })
    ));
    // Twice the greatest amounts still lie in their slots: that is the guard bit.
    let full = packing.pack(&vec![-8192; packing.slots()]).unwrap();
    let c = KEYS.encryptor.encrypt(&full).unwrap();
    let double = KEYS.encryptor.add(&c, &c).unwrap();
    let opened = packing
        .unpack(&KEYS.secret.decrypt(&double).unwrap())
        .unwrap();
    assert_eq!(opened, vec![-16384; packing.slots()]);
    let four = KEYS.encryptor.add(&double, &double).unwrap();
    let four = packing.unpack(&KEYS.secret.decrypt(&four).unwrap());
    assert!(matches!(four, Err(Error::SlotOverflow)));
    let far = Plaintext::from_words(vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert!(matches!(packing.unpack(&far), Err(Error::SlotOverflow)));
}

#[test]
fn malformed_ciphertexts_are_refused() {
    let key = KEYS.secret.public();
    let naive = KEYS.naive.public();
    let n = naive.modulus();
    let size = key.ciphertext_bytes();
    let bytes = |v: &BigUint| {
        let digits = v.to_bytes_be();
        [vec![0; size - digits.len()], digits].concat()
    };
    let (p, _) = KEYS.secret.expose_primes();
    let p = BigUint::from_bytes_be(&p);
    let n2 = n * n;
    let zero = BigUint::from(0u32);
    let wrong = [
        zero,
        n.clone(),
        n * 5u32,
        n2.clone(),
        &n2 + 1u32,
        p.clone(),
        &p * &p * 3u32,
    ];
    let right = bytes(&(n + 1u32));
    for value in wrong {
        let many = key.parse_many(&[right.clone(), bytes(&value), right.clone()]);
        assert!(matches!(many, Err(Error::CiphertextValue)));
        assert!(matches!(
            key.parse(&bytes(&value)),
            Err(Error::CiphertextValue)
        ));
        assert!(matches!(
            naive.parse(&bytes(&value)),
            Err(Error::CiphertextValue)
        ));
    }
    assert!(matches!(
        key.parse(&vec![255; size]),
        Err(Error::CiphertextValue)
    ));
    for length in [0, size - 1, size + 1] {
        assert!(matches!(
            key.parse(&vec![1; length]),
            Err(Error::CiphertextLength { .. })
        ));
        assert!(matches!(
            naive.parse(&vec![1; length]),
            Err(Error::CiphertextLength { .. })
        ));
    }
    assert!(key.parse(&bytes(&BigUint::from(1u32))).is_ok());
    assert!(key.parse(&bytes(&(&n2 - 1u32))).is_ok());
    let many = key.parse_many(&[&right[..], &right]).unwrap();
    assert!(many.iter().all(|c| key.to_bytes(c) == right));
    let short = key.parse_many(&[&right[..], &right[1..]]);
    assert!(matches!(short, Err(Error::CiphertextLength { .. })));
    assert!(key.parse_many(&[[0u8; 0]; 0]).unwrap().is_empty());
}

#[test]
fn ciphertexts_of_two_keys_do_not_mix() {
    let key = KEYS.secret.public();
    let own = KEYS.encryptor.encrypt(&1.into()).unwrap();
    let other = encryptor(&OTHER, 64);
    let foreign = other.encrypt(&1.into()).unwrap();
    assert!(matches!(key.add(&own, &foreign), Err(Error::OtherKey)));
    assert!(matches!(key.mul_plain(&foreign, 3), Err(Error::OtherKey)));
    assert!(matches!(
        KEYS.secret.decrypt(&foreign),
        Err(Error::OtherKey)
    ));
    assert!(matches!(
        SignTables::new(key, std::slice::from_ref(&foreign)),
        Err(Error::OtherKey)
    ));
    let tables = SignTables::new(key, &[own]).unwrap();
    let mixed = tables.combine(&1.into(), &[true], other.randomiser());
    assert!(matches!(mixed, Err(Error::OtherKey)));
}

#[test]
fn many_fail_as_one_does() {
    let key = KEYS.secret.public();
    let own = KEYS.encryptor.encrypt(&1.into()).unwrap();
    let other = encryptor(&OTHER, 64);
    let foreign = other.encrypt(&1.into()).unwrap();
    let tables = SignTables::new(key, std::slice::from_ref(&own)).unwrap();
    let far = Plaintext::from_words(vec![0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let randomiser = KEYS.encryptor.randomiser();
    for engine in [Engine::detect(), Engine::PORTABLE] {
        let mixed = [own.clone(), foreign.clone()];
        let opened = KEYS.secret.decrypt_many_by(engine, &mixed);
        assert!(matches!(opened, Err(Error::OtherKey)));
        let combine = |sum: Plaintext, signs: &[bool], randomiser: &Randomiser| {
            let sums = [(Plaintext::from(1), &[true][..]), (sum, signs)];
            tables.combine_many_by(engine, &sums, randomiser)
        };
        let refused = combine(1.into(), &[true], other.randomiser());
        assert!(matches!(refused, Err(Error::OtherKey)));
        let refused = combine(1.into(), &[], randomiser);
        assert!(matches!(
            refused,
            Err(Error::SignCount {
                found: 0,
                expected: 1
            })
        ));
        let refused = combine(far.clone(), &[true], randomiser);
        assert!(matches!(refused, Err(Error::PlaintextRange)));
        // No two with the same randomness.
        let twice = combine(1.into(), &[true], randomiser).unwrap();
        assert_ne!(key.to_bytes(&twice[0]), key.to_bytes(&twice[1]));
    }
}

#[test]
fn a_random_generator_works_as_well() {
    let secret = naive::SecretKey::generate(512, Generator::Random).unwrap();
    laws(secret.public(), &secret, -12345, 777, -9);
    let p = BigUint::from(7u32);
    assert!(naive::SecretKey::from_primes(&p, &p, Generator::OneMore).is_err());
    // 3 divides 7 − 1.
    let three = BigUint::from(3u32);
    assert!(naive::SecretKey::from_primes(&three, &p, Generator::Random).is_err());
}

#[test]
fn coefficients_are_pretreated_as_in_the_paper() {
    let coefficients = [-12.25, 0.0, 100.5, 7.125];
    let pretreated = Pretreated::new(&coefficients, 8).unwrap();
    assert_eq!(pretreated.balance, 12.25);
    assert_eq!(pretreated.values, [0, 98, 902, 155]);
    let public = KEYS.naive.public();
    for (value, coefficient) in pretreated.values.iter().zip(coefficients) {
        let c = public.encrypt(&(*value as i64).into()).unwrap();
        let opened = KEYS.naive.decrypt(&c).unwrap().to_i64().unwrap();
        assert_eq!(pretreated.restore(opened), coefficient);
    }
    assert_eq!(Pretreated::new(&[1.5], 2).unwrap().balance, 0.0);
    for wrong in [f64::NAN, f64::INFINITY, 1e12] {
        assert!(matches!(
            Pretreated::new(&[wrong], 8),
            Err(Error::Pretreatment)
        ));
    }
    assert!(matches!(
        Pretreated::new(&[1.0], 0),
        Err(Error::Pretreatment)
    ));
}

#[test]
fn exponents_are_long_enough() {
    let key = KEYS.secret.public();
    assert_eq!(rerandomise_bits(key, 100, 0, 204), 100 + 8 + 64);
    assert_eq!(rerandomise_bits(key, 100, 200, 1), 100 + 200 + 64);
    assert_eq!(rerandomise_bits(key, 512, 500, 204), BITS + 64);
    let base = Base::derive(key, &SEED, b"contract").as_ciphertext();
    for (seed, context) in [([8; 32], &b"contract"[..]), (SEED, b"another")] {
        let other = Base::derive(key, &seed, context).as_ciphertext();
        assert_ne!(key.to_bytes(&base), key.to_bytes(&other));
    }
    // An n-th residue: an encryption of 0.
    assert_eq!(KEYS.secret.decrypt(&base).unwrap().to_i64(), Some(0));
    let mut random = Random::new().unwrap();
    for bits in [1, 63, 64, 65, 584] {
        assert!(random.below_power(bits).bits() <= bits);
    }
}

#[test]
fn keys_are_checked() {
    assert!(matches!(
        SecretKey::generate(1000),
        Err(Error::KeySize(1000))
    ));
    let (p, q) = KEYS.secret.expose_primes();
    assert!(SecretKey::from_prime_bytes(&p, &q).is_ok());
    assert!(SecretKey::from_prime_bytes(&p, &p).is_err());
    assert!(SecretKey::from_prime_bytes(&p, &q[1..]).is_err());
    let mut composite = p.to_vec();
    for _ in 0..3 {
        let last = composite.len() - 1;
        composite[last] = composite[last].wrapping_add(4);
    }
    assert!(SecretKey::from_prime_bytes(&composite, &q).is_err());
    let modulus = KEYS.secret.public().modulus();
    assert_eq!(
        &PublicKey::from_modulus(&modulus).unwrap(),
        KEYS.secret.public()
    );
    let mut even = modulus.clone();
    even[63] &= 0xfe;
    let mut short = modulus.clone();
    short[0] &= 0x7f;
    for wrong in [even, short] {
        assert!(matches!(
            PublicKey::from_modulus(&wrong),
            Err(Error::Form { .. })
        ));
    }
    assert!(matches!(
        PublicKey::from_modulus(&modulus[8..]),
        Err(Error::KeySize(_))
    ));
    assert!(matches!(
        PublicKey::from_modulus(&[]),
        Err(Error::KeySize(0))
    ));
    assert_eq!(format!("{:?}", KEYS.secret), "SecretKey(512 bits)");
}

mod proofs {
    use super::*;
    use crypto_bigint::BoxedUint;
    use minicbor::bytes::ByteVec;
    use minicbor::{Decode, Encode};

    const CONTEXT: &[u8] = b"contract 1 of owner and cloud";

    static PROOF: LazyLock<CertifiedKey> =
        LazyLock::new(|| CertifiedKey::prove(&KEYS.secret, CONTEXT).unwrap());

    /// The message with its fields open, for what a liar may send.
    #[derive(Clone, Encode, Decode)]
    #[cbor(map)]
    struct Open {
        #[n(0)]
        version: u32,
        #[n(1)]
        modulus: ByteVec,
        #[n(2)]
        fourth_roots: ByteVec,
        #[n(3)]
        choices: ByteVec,
        #[n(4)]
        roots: ByteVec,
    }

    impl Open {
        fn of(key: &CertifiedKey) -> Self {
            crate::protocol::decode(&key.to_bytes()).unwrap()
        }

        fn verify(&self) -> Result<PublicKey, Error> {
            let bytes = crate::protocol::encode(self);
            CertifiedKey::from_bytes(&bytes).unwrap().verify(CONTEXT)
        }
    }

    fn reason<T>(result: Result<T, Error>) -> &'static str {
        match result {
            Err(Error::Proof(reason)) => reason,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("accepted"),
        }
    }

    fn prime(bits: u32, residue: u64) -> BoxedUint {
        loop {
            let p: BoxedUint = crypto_primes::random_prime(
                &mut Random::new().unwrap(),
                crypto_primes::Flavor::Any,
                bits,
            );
            if p.as_words()[0] & 3 == residue {
                return p;
            }
        }
    }

    /// The best that a prover can do who knows all factors: the right root wherever there is one.
    fn lie(factors: &[BoxedUint]) -> Option<Open> {
        let n = factors
            .iter()
            .fold(BigUint::from(1u32), |n, p| n * naive::big(p));
        let mut open = Open::of(&PROOF);
        open.modulus = n.to_bytes_be().into();
        (n.bits() == u64::from(BITS)).then_some(open)
    }

    #[test]
    fn an_honest_key_is_accepted() {
        let key = PROOF.verify(CONTEXT).unwrap();
        assert_eq!(&key, KEYS.secret.public());
        let again = CertifiedKey::from_bytes(&PROOF.to_bytes()).unwrap();
        assert_eq!(&again, &*PROOF);
        again.verify(CONTEXT).unwrap();
    }

    #[test]
    fn a_proof_holds_for_its_contract_and_key_alone() {
        assert_eq!(
            reason(PROOF.verify(b"contract 2")),
            "a fourth root is wrong"
        );
        let mut open = Open::of(&PROOF);
        open.modulus = OTHER.public().modulus().into();
        assert!(open.verify().is_err());
    }

    #[test]
    fn every_part_of_a_proof_counts() {
        let honest = Open::of(&PROOF);
        let bytes = BITS as usize / 8;
        for round in [0, 1, SQUARE_ROUNDS - 1] {
            let mut open = honest.clone();
            open.fourth_roots[round * bytes + bytes - 1] ^= 1;
            assert_eq!(reason(open.verify()), "a fourth root is wrong");
            let mut open = honest.clone();
            open.choices[round] ^= 1;
            assert_eq!(reason(open.verify()), "a fourth root is wrong");
            open.choices[round] ^= 1 | 4;
            assert_eq!(reason(open.verify()), "a fourth root is wrong");
        }
        for round in [0, ROOT_ROUNDS - 1] {
            let mut open = honest.clone();
            open.roots[round * bytes + bytes - 1] ^= 1;
            assert_eq!(reason(open.verify()), "an n-th root is wrong");
            open.roots[round * bytes..][..bytes].fill(255);
            assert_eq!(reason(open.verify()), "an n-th root is out of range");
        }
        let mut open = honest.clone();
        open.fourth_roots[..bytes].fill(255);
        assert_eq!(reason(open.verify()), "a fourth root is out of range");
        let mut open = honest.clone();
        open.version = 2;
        assert!(reason(open.verify()).contains("version"));
        let mut open = honest.clone();
        open.roots.truncate(bytes * (ROOT_ROUNDS - 1));
        assert!(reason(open.verify()).contains("length"));
        let mut open = honest;
        open.roots.clear();
        open.choices.clear();
        open.fourth_roots.clear();
        assert!(reason(open.verify()).contains("length"));
    }

    #[test]
    fn other_moduli_are_refused() {
        let with = |make: &dyn Fn() -> Vec<BoxedUint>| loop {
            if let Some(open) = lie(&make()) {
                return reason(open.verify());
            }
        };
        let small = || vec![BoxedUint::from(65_521u32), prime(496, 3)];
        assert_eq!(with(&small), "the modulus has a small factor");
        assert_eq!(with(&|| vec![prime(512, 3)]), "the modulus is a prime");
        let square = || {
            let p = prime(256, 3);
            vec![p.clone(), p]
        };
        assert_eq!(with(&square), "the modulus is a square");
    }

    /// Provers who know the factors and answer each challenge that has an answer: how many have
    /// none is what soundness rests on.
    #[test]
    fn wrong_moduli_have_no_answers_to_half_of_the_challenges() {
        let unfit = [
            // Not Blum: one or both primes 1 mod 4.
            vec![prime(256, 1), prime(256, 3)],
            vec![prime(256, 1), prime(256, 1)],
            // Three primes.
            vec![prime(171, 3), prime(171, 3), prime(171, 3)],
        ];
        for factors in unfit {
            let factors: Vec<_> = factors.iter().map(naive::big).collect();
            let one = BigUint::from(1u32);
            let is_fourth = |a: &BigUint, p: &BigUint| {
                // a^((p−1)/gcd(4, p−1)) = 1.
                let index = num_integer::gcd(BigUint::from(4u32), p - &one);
                a.modpow(&((p - &one) / index), p) == one
            };
            let is_square = |a: &BigUint, p: &BigUint| a.modpow(&((p - &one) / 2u32), p) == one;
            let mut random = (1u32..).map(|i| BigUint::from(i).pow(77) * 0x9e37_79b9u32 + 12345u32);
            // Jacobi symbol −1: not a square mod an odd number of the primes.
            let w = random
                .find(|w| factors.iter().filter(|p| !is_square(w, p)).count() % 2 == 1)
                .unwrap();
            let answered = random
                .take(300)
                .filter(|y| {
                    (0..4).any(|choice| {
                        factors.iter().all(|p| {
                            let mut a = y % p;
                            if choice & 1 == 1 {
                                a = p - a;
                            }
                            if choice & 2 == 2 {
                                a = a * &w % p;
                            }
                            is_fourth(&a, p)
                        })
                    })
                })
                .count();
            assert!(answered < 200, "{answered} of 300");
        }
    }

    #[test]
    fn n_with_a_square_has_no_nth_roots() {
        // n = p²·q: the n-th powers are one in p of all units.
        let (p, q) = (naive::big(&prime(128, 3)), naive::big(&prime(128, 3)));
        let n = &p * &p * &q;
        let p2 = &p * &p;
        let has_root = |y: &BigUint| y.modpow(&(&p - 1u32), &p2) == BigUint::from(1u32);
        assert!((2u32..1000).all(|y| !has_root(&BigUint::from(y))));
        let root = BigUint::from(5u32).modpow(&n, &n);
        assert!(has_root(&(root % &p2)));
    }

    #[test]
    fn damaged_messages_are_refused() {
        let bytes = PROOF.to_bytes();
        for cut in [0, 1, 10, bytes.len() - 1] {
            let read = CertifiedKey::from_bytes(&bytes[..cut]);
            assert!(matches!(read, Err(Error::Form { .. })));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(CertifiedKey::from_bytes(&longer).is_err());
        assert!(CertifiedKey::from_bytes(&vec![0; 1 << 20]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_messages_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(key) = CertifiedKey::from_bytes(&bytes) {
                prop_assert!(key.verify(CONTEXT).is_err());
            }
        }
    }

    #[test]
    fn key_files_come_back() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (secret, public) = (dir.path().join("secret"), dir.path().join("public"));
        write_secret_key(&secret, &KEYS.secret).unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&secret), 0o600);
        let read = read_secret_key(&secret).unwrap();
        assert_eq!(read.public(), KEYS.secret.public());
        let c = KEYS.encryptor.encrypt(&(-5).into()).unwrap();
        let c = read.public().parse(&KEYS.encryptor.to_bytes(&c)).unwrap();
        assert_eq!(read.decrypt(&c).unwrap().to_i64(), Some(-5));
        // Never over another key.
        assert!(matches!(
            write_secret_key(&secret, &KEYS.secret),
            Err(Error::File(..))
        ));
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_secret_key(&secret), Err(Error::FileMode(_))));

        write_public_key(&public, &PROOF).unwrap();
        assert_eq!(&read_public_key(&public).unwrap(), &*PROOF);
        assert!(matches!(read_secret_key(&public), Err(Error::FileMode(_))));
        std::fs::set_permissions(&public, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read_secret_key(&public), Err(Error::Form { .. })));
        let missing = read_public_key(&dir.path().join("none"));
        assert!(matches!(missing, Err(Error::File(..))));
        for damaged in [
            &b""[..],
            b"\xff\xfe",
            b"camvault-paillier-public-1 !!",
            &[b'a'; 200_000],
        ] {
            std::fs::write(&public, damaged).unwrap();
            assert!(matches!(read_public_key(&public), Err(Error::Form { .. })));
        }
        std::fs::write(&public, b"camvault-paillier-secret-1 oA").unwrap();
        assert!(matches!(read_secret_key(&public), Err(Error::Form { .. })));
    }
}
