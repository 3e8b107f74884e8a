// Package logical reads the two languages of logical flows: match expressions and actions, as in ovn-sb(5).
//
// [ParseMatch] turns the text of a match into an [Expr] and that into [Matches], the matches of one or more
// OpenFlow flows; [ParseActions] turns the text of actions into a typed list. Both use the symbols of [Symbols].
// The texts come from the southbound database: whatever they contain, the functions return a value or an error
// with its position, and bound the time and memory they spend.
package logical
