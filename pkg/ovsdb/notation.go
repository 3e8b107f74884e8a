package ovsdb

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	libovsdb "github.com/ovn-org/libovsdb/ovsdb"
)

// A Ref is a reference to a row: its UUID in text form, or the name that
// [InsertRow] gave it in the same transaction. Plain strings are never taken
// for references.
type Ref string

// A value is a Go value that is sent in the notation of RFC 7047, section 5.1.
// These types have one:
//
//	string, bool, int, int64, float64   the atom
//	Ref, UUID                           ["uuid", ...] or ["named-uuid", ...]
//	*string, *bool, *int                the atom, or the empty set if nil
//	[]string, []int, []Ref              a set
//	map[string]string, map[string]int,
//	map[string]Ref, map[int]Ref         a map, in the order of its keys
//
// A json.Marshaler speaks for itself, so libovsdb's OvsSet, OvsMap and UUID
// work as well.
type value struct{ v any }

// MarshalJSON returns the value in OVSDB notation.
func (v value) MarshalJSON() ([]byte, error) {
	n, err := notation(v.v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(n)
}

func notation(v any) (any, error) {
	switch v := v.(type) {
	case string, bool, int, int64, float64, json.Marshaler:
		return v, nil
	case UUID:
		return []string{"uuid", v.String()}, nil
	case Ref:
		if libovsdb.IsValidUUID(string(v)) {
			return []string{"uuid", string(v)}, nil
		}
		return []string{"named-uuid", string(v)}, nil
	case *string:
		return optionalNotation(v)
	case *bool:
		return optionalNotation(v)
	case *int:
		return optionalNotation(v)
	case []string:
		return setNotation(v)
	case []int:
		return setNotation(v)
	case []Ref:
		return setNotation(v)
	case map[string]string:
		return mapNotation(v, slices.Sorted(maps.Keys(v)))
	case map[string]int:
		return mapNotation(v, slices.Sorted(maps.Keys(v)))
	case map[string]Ref:
		return mapNotation(v, slices.Sorted(maps.Keys(v)))
	case map[int]Ref:
		return mapNotation(v, slices.Sorted(maps.Keys(v)))
	}
	return nil, fmt.Errorf("ovsdb encode %T: no OVSDB notation", v)
}

func optionalNotation[T any](p *T) (any, error) {
	if p == nil {
		return setNotation([]T(nil))
	}
	return notation(*p)
}

func setNotation[T any](set []T) (any, error) {
	atoms := make([]any, len(set))
	for i, v := range set {
		n, err := notation(v)
		if err != nil {
			return nil, err
		}
		atoms[i] = n
	}
	return []any{"set", atoms}, nil
}

func mapNotation[K comparable, V any](m map[K]V, keys []K) (any, error) {
	pairs := make([]any, len(keys))
	for i, k := range keys {
		key, err := notation(k)
		if err != nil {
			return nil, err
		}
		v, err := notation(m[k])
		if err != nil {
			return nil, err
		}
		pairs[i] = []any{key, v}
	}
	return []any{"map", pairs}, nil
}
