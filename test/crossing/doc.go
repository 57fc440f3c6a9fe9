// Package crossing carries texts and files between a played desktop and the
// programs of real people.
package crossing
