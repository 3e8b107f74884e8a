package ir

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

func bigOf(u U128) *big.Int {
	b := u.Bytes16()
	return new(big.Int).SetBytes(b[:])
}

// math/big is the oracle of the arithmetic.
func TestU128AgreesWithBig(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	mod := new(big.Int).Lsh(big.NewInt(1), 128)
	for range 20000 {
		u, v := U128{rnd.Uint64(), rnd.Uint64()}, U128{rnd.Uint64(), rnd.Uint64()}
		if rnd.IntN(3) == 0 {
			u = u.Shr(rnd.IntN(128))
		}
		n := rnd.IntN(128)
		for _, c := range []struct {
			name string
			got  U128
			want *big.Int
		}{
			{"And", u.And(v), new(big.Int).And(bigOf(u), bigOf(v))},
			{"Or", u.Or(v), new(big.Int).Or(bigOf(u), bigOf(v))},
			{"Xor", u.Xor(v), new(big.Int).Xor(bigOf(u), bigOf(v))},
			{"AndNot", u.AndNot(v), new(big.Int).AndNot(bigOf(u), bigOf(v))},
			{"Shl", u.Shl(n), new(big.Int).Mod(new(big.Int).Lsh(bigOf(u), uint(n)), mod)},
			{"Shr", u.Shr(n), new(big.Int).Rsh(bigOf(u), uint(n))},
			{"Add", u.Add(v), new(big.Int).Mod(new(big.Int).Add(bigOf(u), bigOf(v)), mod)},
			{"Sub", u.Sub(v), new(big.Int).Mod(new(big.Int).Add(new(big.Int).Sub(bigOf(u), bigOf(v)), mod), mod)},
			{"Ones", Ones(n), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(n)), big.NewInt(1))},
		} {
			if bigOf(c.got).Cmp(c.want) != 0 {
				t.Fatalf("%s(%v, %v, %d) = %v, want %#x", c.name, u, v, n, c.got, c.want)
			}
		}
		if got, want := u.Cmp(v), bigOf(u).Cmp(bigOf(v)); got != want {
			t.Fatalf("Cmp(%v, %v) = %d, want %d", u, v, got, want)
		}
		if got, want := u.BitLen(), bigOf(u).BitLen(); got != want {
			t.Fatalf("BitLen(%v) = %d, want %d", u, got, want)
		}
	}
}

// Every field has a name and a width, and names are unique.
func TestFieldTableIsComplete(t *testing.T) {
	seen := map[string]Field{}
	for f := Field(1); f < numFields; f++ {
		if fields[f].name == "" || f.Bits() == 0 {
			t.Errorf("field %d has name %q and %d bits", f, fields[f].name, f.Bits())
		}
		if g, dup := seen[f.String()]; dup {
			t.Errorf("fields %d and %d are both %q", g, f, f)
		}
		seen[f.String()] = f
	}
}

// sat reports whether a packet, given as field values, satisfies m.
func sat(m Match, pkt map[Field]U128) bool {
	for _, t := range m {
		if pkt[t.Field].And(t.Mask) != t.Value {
			return false
		}
	}
	return true
}

// With and And mean conjunction: on every packet of a small domain they agree with their parts.
func TestMatchIsConjunction(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	fs := []Field{IPECN, IPFrag, IPDSCP}
	random := func() Match {
		var m Match
		for range rnd.IntN(4) {
			f := fs[rnd.IntN(len(fs))]
			if n, ok := m.With(f, U64(rnd.Uint64N(8)), U64(rnd.Uint64N(8))); ok {
				m = n
			}
		}
		return m
	}
	for range 5000 {
		a, b := random(), random()
		both, ok := a.And(b)
		for i := 1; i < len(both); i++ {
			if both[i-1].Field >= both[i].Field {
				t.Fatalf("%v is not sorted", both)
			}
		}
		for p := range uint64(8 * 4 * 4) {
			pkt := map[Field]U128{IPECN: U64(p & 3), IPFrag: U64(p >> 2 & 3), IPDSCP: U64(p >> 4)}
			want := sat(a, pkt) && sat(b, pkt)
			if got := ok && sat(both, pkt); got != want {
				t.Fatalf("%v && %v = %v, %v: packet %v: %v, want %v", a, b, both, ok, pkt, got, want)
			}
		}
	}
}

func TestRegisterViewsBecomeRegisters(t *testing.T) {
	m, ok := Match{}.With(XXReg0, U128{0x0000000100000002, 0x0000000300000004}, XXReg0.Ones())
	if !ok {
		t.Fatal("contradiction")
	}
	want := Match{}.Eq(Reg0, 1).Eq(Reg1, 2).Eq(Reg2, 3).Eq(Reg3, 4)
	if !m.Equal(want) {
		t.Errorf("xxreg0 = %v, want %v", m, want)
	}
	m, _ = Match{}.With(XReg4, U64(0x0000000800000009), XReg4.Ones())
	if want := (Match{}).Eq(Reg8, 8).Eq(Reg9, 9); !m.Equal(want) {
		t.Errorf("xreg4 = %v, want %v", m, want)
	}
}
