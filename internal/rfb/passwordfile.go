package rfb

// everybodysKey is what classic viewers encrypt their password files under: the
// same everywhere since AT&T's first, so that it hides nothing.
const everybodysKey = "\x17Rk\x06#NX\x07"

// PasswordFile returns what a file holds that tells a classic viewer the
// password: one block of DES, of the first 8 bytes.
func PasswordFile(password string) []byte {
	block := make([]byte, 16) // respond answers two
	copy(block[:8], password)
	return respond(block, everybodysKey)[:8]
}
