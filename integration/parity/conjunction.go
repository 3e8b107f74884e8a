package parity

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A conjunctive match is one flow that matches conj_id=C and, for each of its n dimensions, the flows whose
// action is conjunction(C,k/n); see "Conjunctive Matches" in ovs-fields(7). C and the order of the dimensions
// mean nothing in themselves. nameConjunctions replaces C by a name derived from the flow that matches it, so
// that one missing member shows as one difference, and orders the dimensions by the fields they match.

var (
	reConjID      = regexp.MustCompile(`\bconj_id=(\d+),?`)
	reConjunction = regexp.MustCompile(`\bconjunction\((\d+),(\d+)/(\d+)\)`)

	// The same two after nameConjunctions.
	reConjName        = regexp.MustCompile(`\bconj_id=(<[^>]*>)`)
	reConjunctionName = regexp.MustCompile(`\bconjunction\((<[^>]*>),`)
)

// conjKey identifies a conjunction: OVS keeps them apart by table and priority.
type conjKey struct {
	table, priority int
	id              string
}

// conjunction is what one conj_id connects.
type conjunction struct {
	owners     []string            // flows that match the conj_id, without it
	dimensions map[string][]string // matches of the members, by k
}

func nameConjunctions(flows []Flow) {
	all := make(map[conjKey]*conjunction)
	at := func(f Flow, id string) *conjunction {
		k := conjKey{f.Table, f.Priority, id}
		if all[k] == nil {
			all[k] = &conjunction{dimensions: make(map[string][]string)}
		}
		return all[k]
	}
	for _, f := range flows {
		if m := reConjID.FindStringSubmatch(f.Match); m != nil {
			c := at(f, m[1])
			c.owners = append(c.owners, fmt.Sprintf("%x %s %s", f.Cookie, stripConjID(f.Match), f.Actions))
		}
		for _, m := range reConjunction.FindAllStringSubmatch(f.Actions, -1) {
			c := at(f, m[1])
			c.dimensions[m[2]] = append(c.dimensions[m[2]], f.Match)
		}
	}

	names, order := canonicalNames(all)
	for i := range flows {
		f := &flows[i]
		f.Match = replace(reConjID, f.Match, func(m []string) string {
			name := "conj_id=" + names[conjKey{f.Table, f.Priority, m[1]}]
			if strings.HasSuffix(m[0], ",") {
				name += ","
			}
			return name
		})
		if !strings.Contains(f.Actions, "conjunction(") {
			continue
		}
		f.Actions = replace(reConjunction, f.Actions, func(m []string) string {
			k := conjKey{f.Table, f.Priority, m[1]}
			return fmt.Sprintf("conjunction(%s,%d/%s)", names[k], order[k][m[2]], m[3])
		})
		list := splitActions(f.Actions)
		slices.Sort(list)
		f.Actions = strings.Join(list, ",")
	}
}

// canonicalNames names every conjunction after its owner, adding its whole structure only where two have
// the same owner text, and numbers its dimensions from 1.
func canonicalNames(all map[conjKey]*conjunction) (map[conjKey]string, map[conjKey]map[string]int) {
	order := make(map[conjKey]map[string]int)
	structure := make(map[conjKey]string)
	same := make(map[string]int)
	for k, c := range all {
		slices.Sort(c.owners)
		dims := slices.Collect(maps.Keys(c.dimensions))
		for _, d := range dims {
			slices.Sort(c.dimensions[d])
		}
		slices.SortFunc(dims, func(a, b string) int {
			x, y := c.dimensions[a], c.dimensions[b]
			return cmp.Or(slices.Compare(fieldsOf(x), fieldsOf(y)), slices.Compare(x, y))
		})
		order[k] = make(map[string]int)
		var s strings.Builder
		for i, d := range dims {
			order[k][d] = i + 1
			fmt.Fprintln(&s, i+1, c.dimensions[d])
		}
		structure[k] = s.String()
		same[c.owner(k)]++
	}
	names := make(map[conjKey]string)
	for k, c := range all {
		owner := c.owner(k)
		names[k] = "<" + hash(owner)
		if same[owner] > 1 || len(c.owners) == 0 {
			names[k] += "." + hash(structure[k])
		}
		names[k] += ">"
	}
	return names, order
}

// owner is the text a conjunction is named after.
func (c *conjunction) owner(k conjKey) string {
	return strconv.Itoa(k.table) + " " + strconv.Itoa(k.priority) + " " + strings.Join(c.owners, "\n")
}

// fieldsOf lists the names of the fields in matches, sorted, each once.
func fieldsOf(matches []string) []string {
	seen := make(map[string]bool)
	for _, m := range matches {
		for _, field := range splitActions(m) {
			name, _, _ := strings.Cut(field, "=")
			seen[name] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func stripConjID(match string) string {
	return strings.TrimSuffix(reConjID.ReplaceAllString(match, ""), ",")
}

func hash(s string) string {
	h := fnv.New32a()
	h.Write([]byte(s)) // never fails
	return fmt.Sprintf("%08x", h.Sum32())
}
