package ovsdb

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A column reads, patches and compares the values of one struct field. The
// fields are passed as pointers: *string, **int, *[]string, *map[string]string.
type column struct {
	name  string
	field int        // index in the struct
	typ   columnType // "string" stands for uuid too
	yield *yield

	decode func(d *decoder, field any) error
	patch  func(field, difference any) // by a modify of update2, see ovsdb-server(7)
	equal  func(a, b any) bool
}

// columnFor returns the column of a field, given a pointer to one; false if no
// generated row has fields of that type.
func columnFor(field any) (column, bool) {
	switch field.(type) {
	case *string:
		return scalar(stringAtom), true
	case *int:
		return scalar(integerAtom), true
	case *bool:
		return scalar(booleanAtom), true
	case *float64:
		return scalar(realAtom), true
	case **string:
		return optional(stringAtom), true
	case **int:
		return optional(integerAtom), true
	case **bool:
		return optional(booleanAtom), true
	case **float64:
		return optional(realAtom), true
	case *[]string:
		return set(stringAtom), true
	case *[]int:
		return set(integerAtom), true
	case *[]bool:
		return set(booleanAtom), true
	case *[]float64:
		return set(realAtom), true
	case *map[string]string:
		return mapping(stringAtom, stringAtom), true
	case *map[string]int:
		return mapping(stringAtom, integerAtom), true
	case *map[string]bool:
		return mapping(stringAtom, booleanAtom), true
	case *map[string]float64:
		return mapping(stringAtom, realAtom), true
	case *map[int]string:
		return mapping(integerAtom, stringAtom), true
	case *map[int]int:
		return mapping(integerAtom, integerAtom), true
	}
	return column{}, false
}

// fits tells whether the server's type t can be kept in a field of type c.typ.
// An optional value fits a plain field and the other way round.
func (c *column) fits(t columnType) bool {
	atom := func(server, field string) bool {
		return server == field || server == "uuid" && field == "string"
	}
	return atom(t.key, c.typ.key) && atom(t.value, c.typ.value) && t.many == c.typ.many
}

// An atom is one of the atomic types of RFC 7047, section 3.2.
type atom[T comparable] struct {
	name    string
	read    func(d *decoder) (T, error)
	compare func(a, b T) int
	box     func(d *decoder, v T) *T
}

var (
	stringAtom = &atom[string]{
		name:    "string",
		read:    (*decoder).stringOrUUID,
		compare: cmp.Compare[string],
		box:     func(d *decoder, v string) *string { return d.intern([]byte(v), d.yield) },
	}
	integerAtom = &atom[int]{
		name:    "integer",
		read:    (*decoder).integer,
		compare: cmp.Compare[int],
		box:     func(_ *decoder, v int) *int { return &v },
	}
	realAtom = &atom[float64]{
		name:    "real",
		read:    (*decoder).real,
		compare: cmp.Compare[float64],
		box:     func(_ *decoder, v float64) *float64 { return &v },
	}
	booleanAtom = &atom[bool]{
		name:    "boolean",
		read:    (*decoder).boolean,
		compare: compareBool,
		box:     func(_ *decoder, v bool) *bool { return &v },
	}
)

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// stringOrUUID reads "text" or ["uuid", "text"].
func (d *decoder) stringOrUUID() (string, error) {
	c, err := d.next()
	if err != nil {
		return "", err
	}
	if c == '[' {
		d.pos++
		tag, err := d.text()
		if err != nil {
			return "", err
		}
		if string(tag) != "uuid" {
			return "", fmt.Errorf("%q where a uuid is due", tag)
		}
		return d.uuidRest()
	}
	text, err := d.text()
	if err != nil {
		return "", err
	}
	return *d.intern(text, d.yield), nil
}

// uuidRest reads what follows ["uuid" and returns the UUID's text.
func (d *decoder) uuidRest() (string, error) {
	if err := d.expect(','); err != nil {
		return "", err
	}
	text, err := d.text()
	if err != nil {
		return "", err
	}
	if _, ok := parseUUID(text); !ok {
		return "", fmt.Errorf("%q is not a uuid", text)
	}
	s := *d.intern(text, d.yield)
	return s, d.expect(']')
}

// elements reads a set: an atom, or ["set", [atom, ...]].
func elements[T comparable](d *decoder, a *atom[T], element func(T) error) error {
	c, err := d.next()
	if err != nil {
		return err
	}
	if c != '[' {
		v, err := a.read(d)
		if err != nil {
			return err
		}
		return element(v)
	}
	d.pos++
	tag, err := d.text()
	if err != nil {
		return err
	}
	if string(tag) == "uuid" {
		s, err := d.uuidRest()
		if err != nil {
			return err
		}
		v, ok := any(s).(T)
		if !ok {
			return fmt.Errorf("a uuid where %s is due", a.name)
		}
		return element(v)
	}
	if string(tag) != "set" {
		return fmt.Errorf("%q where a set is due", tag)
	}
	if err := d.expect(','); err != nil {
		return err
	}
	err = d.array(func() error {
		v, err := a.read(d)
		if err != nil {
			return err
		}
		return element(v)
	})
	if err != nil {
		return err
	}
	return d.expect(']')
}

// pairs reads a map: ["map", [[key, value], ...]].
func pairs[K, V comparable](d *decoder, key *atom[K], value *atom[V], pair func(K, V)) error {
	if err := d.expect('['); err != nil {
		return err
	}
	tag, err := d.text()
	if err != nil {
		return err
	}
	if string(tag) != "map" {
		return fmt.Errorf("%q where a map is due", tag)
	}
	if err := d.expect(','); err != nil {
		return err
	}
	err = d.array(func() error {
		if err := d.expect('['); err != nil {
			return err
		}
		k, err := key.read(d)
		if err != nil {
			return err
		}
		if err := d.expect(','); err != nil {
			return err
		}
		v, err := value.read(d)
		if err != nil {
			return err
		}
		pair(k, v)
		return d.expect(']')
	})
	if err != nil {
		return err
	}
	return d.expect(']')
}

var errTooMany = errors.New("more than one element")

// scalar is a column of exactly one atom. A server whose schema allows none
// may send the empty set, which leaves the zero value.
func scalar[T comparable](a *atom[T]) column {
	return column{
		typ: columnType{key: a.name},
		decode: func(d *decoder, field any) error {
			p, n := field.(*T), 0
			*p = *new(T)
			return elements(d, a, func(v T) error {
				if n++; n > 1 {
					return errTooMany
				}
				*p = v
				return nil
			})
		},
		patch: func(field, difference any) { *field.(*T) = *difference.(*T) },
		equal: func(x, y any) bool { return *x.(*T) == *y.(*T) },
	}
}

// optional is a column of one atom or none.
func optional[T comparable](a *atom[T]) column {
	return column{
		typ: columnType{key: a.name},
		decode: func(d *decoder, field any) error {
			p := field.(**T)
			*p = nil
			return elements(d, a, func(v T) error {
				if *p != nil {
					return errTooMany
				}
				*p = a.box(d, v)
				return nil
			})
		},
		patch: func(field, difference any) { *field.(**T) = *difference.(**T) },
		equal: func(x, y any) bool {
			p, q := *x.(**T), *y.(**T)
			return p == q || p != nil && q != nil && *p == *q
		},
	}
}

// set is a column of any number of atoms, kept in ascending order.
func set[T comparable](a *atom[T]) column {
	return column{
		typ: columnType{key: a.name, many: true},
		decode: func(d *decoder, field any) error {
			var values []T
			err := elements(d, a, func(v T) error {
				values = append(values, v)
				return nil
			})
			slices.SortFunc(values, a.compare)
			*field.(*[]T) = slices.Compact(values)
			return err
		},
		patch: func(field, difference any) {
			p := field.(*[]T)
			*p = symmetricDifference(*p, *difference.(*[]T), a.compare)
		},
		equal: func(x, y any) bool { return slices.Equal(*x.(*[]T), *y.(*[]T)) },
	}
}

// symmetricDifference returns the elements of exactly one of two ascending
// sets, nil if there are none.
func symmetricDifference[T any](x, y []T, compare func(a, b T) int) []T {
	var z []T
	for len(x) > 0 && len(y) > 0 {
		switch c := compare(x[0], y[0]); {
		case c < 0:
			z, x = append(z, x[0]), x[1:]
		case c > 0:
			z, y = append(z, y[0]), y[1:]
		default:
			x, y = x[1:], y[1:]
		}
	}
	return append(append(z, x...), y...)
}

// mapping is a column of any number of pairs.
func mapping[K, V comparable](key *atom[K], value *atom[V]) column {
	return column{
		typ: columnType{key: key.name, value: value.name, many: true},
		decode: func(d *decoder, field any) error {
			var m map[K]V
			err := pairs(d, key, value, func(k K, v V) {
				if m == nil {
					m = make(map[K]V)
				}
				m[k] = v
			})
			*field.(*map[K]V) = m
			return err
		},
		patch: func(field, difference any) {
			p := field.(*map[K]V)
			*p = patchMap(*p, *difference.(*map[K]V))
		},
		equal: func(x, y any) bool { return maps.Equal(*x.(*map[K]V), *y.(*map[K]V)) },
	}
}

// patchMap returns old with the pairs of difference added, or changed where
// the key has another value, or removed where the pair is in old. The result
// is a map of its own, nil if it is empty.
func patchMap[K, V comparable](old, difference map[K]V) map[K]V {
	m := make(map[K]V, len(old)+len(difference))
	maps.Copy(m, old)
	for k, v := range difference {
		if was, ok := old[k]; ok && was == v {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	if len(m) == 0 {
		return nil
	}
	return m
}
