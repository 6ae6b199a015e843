from training.command import main

main()
