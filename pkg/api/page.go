package api

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/offloadd/offloadd/pkg/reason"
)

const (
	// maxPage bounds the items of a page.
	maxPage = 1000
	// maxPageBytes is from how many bytes on a page takes no further item: clients accept messages of 4 MiB.
	maxPageBytes = 1 << 20
)

// A pageRequest is what requests for pages have in common.
type pageRequest interface {
	GetPageSize() int32
	GetPageToken() string
}

// page converts the items of a page, in the order of their keys, and returns the token of the next one. Keys are unique.
// list names what is listed, and filter how it was selected, so that no token is taken for another list.
func page[T any, M proto.Message](req pageRequest, list string, filter proto.Message, items []T, key func(T) string, convert func(T) M) ([]M, string, error) {
	size := int(req.GetPageSize())
	switch {
	case size < 0:
		return nil, "", invalid(reason.Field{Path: "page_size", Cause: fmt.Sprintf("%d: negative", size)})
	case size == 0 || size > maxPage:
		size = maxPage
	}
	scope, err := listScope(list, filter)
	if err != nil {
		return nil, "", err
	}
	after, err := parseToken(scope, req.GetPageToken())
	if err != nil {
		return nil, "", err
	}
	items = slices.Clone(items)
	slices.SortFunc(items, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	if after != "" {
		first, found := slices.BinarySearchFunc(items, after, func(item T, k string) int { return strings.Compare(key(item), k) })
		if found {
			first++
		}
		items = items[first:]
	}
	var out []M
	for bytes := 0; len(out) < min(size, len(items)) && bytes < maxPageBytes; {
		m := convert(items[len(out)])
		bytes += proto.Size(m)
		out = append(out, m)
	}
	if len(out) == len(items) {
		return out, "", nil
	}
	return out, formatToken(scope, key(items[len(out)-1])), nil
}

// listScope condenses what is listed and how it is selected.
func listScope(list string, filter proto.Message) (uint64, error) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(list))
	if filter != nil {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(filter)
		if err != nil {
			return 0, fmt.Errorf("api page: %w", err)
		}
		_, _ = h.Write(b)
	}
	return h.Sum64(), nil
}

// A token is the scope of its list and the key of the last item of the page before.
func formatToken(scope uint64, last string) string {
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint64(nil, scope), last...))
}

func parseToken(scope uint64, token string) (last string, err error) {
	if token == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) <= 8 || binary.BigEndian.Uint64(b) != scope {
		return "", reason.Errorf(reason.PageTokenInvalid, "api page: token %.64q is of no page of this list", token)
	}
	return string(b[8:]), nil
}
