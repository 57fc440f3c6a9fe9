# consort hyper-v protocol 1: drop

# drop removes a file that we made for a moment.
function Invoke-Request($a) {
    $path = Get-Stored $a.file
    foreach ($one in $path, ('{0}.part' -f $path), ('{0}.note' -f $path)) {
        if (Test-Path -LiteralPath $one) { Remove-Item -LiteralPath $one -Force }
    }
    @{}
}
