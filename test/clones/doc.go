// Package clones holds instant clones of a real guest to what no two of them
// may share.
package clones
