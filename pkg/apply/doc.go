// Package apply turns what is desired and what is installed into operations in a safe order, and carries them out:
// one loop per target.
package apply
